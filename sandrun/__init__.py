"""What users import and type. Stands alone: imports no other room, no Django; knows no Linux."""
